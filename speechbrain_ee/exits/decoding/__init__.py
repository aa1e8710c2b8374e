"""From what an exit put out to what was said.

==================  =====================================================
module              what it holds
==================  =====================================================
``greedy``          CTC's best path, for a whole batch at once
``nbest``           hypotheses with scores: what the costlier ways return
``search_options``  width of a beam, weights, further scorers
``beam_search``     SpeechBrain's beam search over an exit's attention
                    head, alone or together with its CTC head
``rescoring``       CTC's N best, rescored by the attention head in one
                    pass
``methods``         all of them by name
==================  =====================================================

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.exits.decoding.greedy import greedy_tokens
from speechbrain_ee.exits.decoding.nbest import NBest, Scored

__all__ = ["NBest", "Scored", "greedy_tokens"]
