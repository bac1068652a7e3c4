"""The harness that plans faults from a seed and shows that nothing acknowledged is lost or doubled.

It stands outside the product: it starts the command, kills it, and reads what is left by plain SQL. `witness` is the
user's model that writes down each epoch it trains, `oracle` reads that account against the storage, `runs` starts and
watches the command, `kills`, `points`, `disk` and `reproduce` are the scenarios, `__main__` runs all of them
(`make chaos`).
"""
