"""Who answers: the bare base and admitted adapters; their answers, labels, likelihoods and vectors."""
