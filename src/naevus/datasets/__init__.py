"""Tables about images, and the images behind them."""
