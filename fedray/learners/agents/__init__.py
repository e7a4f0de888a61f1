"""How an agent learns: one file an algorithm (`model.algorithm`)."""
