"""Many clients in one call: their common steps as array operations, everything else one by one through the predictor.

Requests and answers are columns here (`asked`, `answers`); records of one shape are the rows of one array of bytes
(`layout`), which `carrying` turns into the next records. `together` puts it to work: load, step, save, each once.
"""
