"""`make bench`: what the whole path costs, as ratios from one interleaved run."""
