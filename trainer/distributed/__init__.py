"""Several processes that train one run together: how they find each other, talk, decide and notice each other's end."""
