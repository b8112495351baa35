"""Writing a challenge submission (`write`), and finding what is wrong with one (`lint_*`).

Nothing is imported here: whoever predicts writes one, and checking one brings pandas.
"""
