"""A small LibriSpeech that is made, not downloaded: :func:`build_demo_corpus`.

=============  ============================================================
module         what it holds
=============  ============================================================
``corpus``     the plan, the files, and whether they are whole
``text``       a small grammar of English
``voices``     speakers, and the synthesiser that lends the voice
``acoustics``  rooms, noises and levels
=============  ============================================================

Authors
 * The speechbrain-ee contributors 2026
"""

from speechbrain_ee.data.demo.corpus import DemoCorpus, build_demo_corpus

__all__ = ["DemoCorpus", "build_demo_corpus"]
