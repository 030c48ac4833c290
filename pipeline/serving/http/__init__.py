"""The HTTP app: OpenAI's protocol over an engine, and what stands before it: limits, time-outs, keys, rates. docs/serving.md."""
