"""From observations to a ranking: the order, the record, and how two of them agree."""
