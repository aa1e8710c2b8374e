"""The learned selector: what is going on worth?

=======================  ==================================================
module                   what it holds
=======================  ==================================================
``learned``              ``LearnedSelector``: fit, score, explain
``selector_file``        ``read_selector``, ``write_selector``
``words``                words of transcripts as rows of features
``word_table``           those rows; ``word_changes`` from exit to exit
``word_value``           networks: errors that later exits take away
``valued_words``         the same, cross-fitted on a development trace
``transcript_features``  sums over the words of a transcript
``features``             everything that is known at an exit
``steps``                evidence cut at its quantiles
``ridge``                ridge regression with leave-one-out predictions
``selection``            selector, combination and n-gram model of a recipe
=======================  ==================================================

Authors
 * The speechbrain-ee contributors 2026
"""
