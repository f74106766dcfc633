"""Graph -> Graph passes, then Graph -> Program."""
