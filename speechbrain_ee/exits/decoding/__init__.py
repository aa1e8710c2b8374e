"""From what an exit put out to what was said.

==================  =====================================================
module              what it holds
==================  =====================================================
``methods``         all ways by name: CTC's best path, its N best rescored
                    by the attention head, searches
``beam_search``     hypotheses with scores; SpeechBrain's beam search over
                    an exit's attention head, alone or with its CTC head
``search_options``  width of a beam, weights, further scorers
==================  =====================================================

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits.decoding.beam_search import NBest, Scored
from speechbrain_ee.exits.decoding.methods import greedy_tokens
from speechbrain_ee.exits.decoding.search_options import SearchOptions

__all__ = ["NBest", "Scored", "SearchOptions", "greedy_tokens"]
