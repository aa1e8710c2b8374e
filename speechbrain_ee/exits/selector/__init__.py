"""The learned selector: what is going on worth?

==================  =======================================================
module              what it holds
==================  =======================================================
``selector``        ``LearnedSelector``: fit, score, explain; ``Selection``
``selector_file``   ``read_selector``, ``write_selector``
``features``        everything that is known at an exit
``words``           words of transcripts as rows of features
``value``           networks: errors that later exits take away at a word
==================  =======================================================

Authors
 * The speechbrain-ee contributors 2026
"""
