"""Who is asked the test rows, and how: models, cheaper answers, suites and judges bound together. No verdict is made here."""
