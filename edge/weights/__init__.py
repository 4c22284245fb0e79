"""The node's disk: verified blobs, the origin behind them, holds and budgets."""
