"""Learning from a reward by PPO: adapters of one base in four parts, answers that are sampled and judged, a watch over them."""
