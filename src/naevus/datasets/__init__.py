"""Tables about pictures, and the pictures behind them."""
