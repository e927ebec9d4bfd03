"""Judgements of samples that are judged apart, as in other processes."""

from __future__ import annotations

import pickle

__all__ = ["judged_apart"]


def judged_apart(judge, samples):
    """Returns what a judge makes of samples, each `(reference, candidate, inputs)`, one by one.

    Judges and what they saw travel as bytes, but for those that call a function of the user's.
    """
    whole = judge.start()
    for sample in samples:
        judging = _travelled(judge, judge).start()
        judging.add(*sample)
        whole.merge(_travelled(judge, judging))
    return whole.judgements()


def _travelled(judge, thing):
    return thing if judge.calls_user else pickle.loads(pickle.dumps(thing))
