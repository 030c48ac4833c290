"""One training on several processes of one machine: starting them, what they tell one another, weights spread over them."""
