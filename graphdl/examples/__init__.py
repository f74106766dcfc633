"""Complete programs that use graphdl as its users do."""
