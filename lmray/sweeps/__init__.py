"""Questions asked by many runs: spaces, the order of trials, what happened to them."""
