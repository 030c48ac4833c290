"""Learning what is new without losing what was learned."""
