"""The hostile trial: replies of every kind, forged in every way, against an independent validator.

    python -m tests.fuzz --hours 2 --jobs 2     # from the repository root; exits 1 if anything failed
    BYZFLOWER_FUZZ_CASES=20000 pytest tests/fuzz   # a few minutes; by default a few hundred cases

A *case* is a run of one to three rounds: a tiny model, a few nodes (single clients, or cohorts), a rule, and
a list of *mutations*, what some nodes do otherwise than benign ones. It is drawn from a seed and a number,
is plain data, and is the same whenever it is run. Its replies travel through Flower's own serialisation;
the strategy gets what arrives. After each round is checked that

* no exception escapes, and the new model has the old one's form and is finite;
* no upload is accepted that breaks the documented contract (*wrong acceptance*), and no benign client is left
  out, or named as quarantined, then or later (*wrong blame*);
* every client that was asked is in the record exactly once, and nobody else (*accounting*);
* reasons and log lines are one printable line of bounded length (*text*);
* the mean and the median are what plain NumPy makes of the accepted uploads (*aggregate*), no round is
  skipped without a reason (*skipped*), and robust rules stay near the benign uploads (*not robust*).

One case in sixteen is extreme finite rows for any rule, pre-aggregation and precision: through a whole
strategy, and for the rule alone ("apply"). What fails is shrunk and printed as JSON; a file of it in `cases`
is replayed by pytest for ever.

Where to find what:

=============== =======================================================================================
`cases`         a case as data, and those that once failed
`draw`          how cases are drawn
`mutations`     what hostile nodes do: one small function each, with arguments that the case spells out;
                `array_edits` are those of single arrays
`models`        tiny models
`kinds`         upload kinds: how benign clients encode, and what an upload means, written from the contract
`content`       a reply as plain data
`wire`          replies through Flower's serialisation
`world`         the federation of a case
`rules`         strategies, and what is promised of each
`judge`         what must become of every client
`checks`        what is checked after a round
`trial`         one case
`shrink`, `run` make failing cases small; run many
=============== =======================================================================================

The validator calls none of the project's decoders. Where the contract is silent (Fortran's order, a version 2
header, two different replies of one node) it allows either outcome, but never an exception.
"""
