"""Dashboard: server-rendered pages on spending, savings, drift, episodes and votes, and the figures behind them."""
