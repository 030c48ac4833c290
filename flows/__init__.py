"""When the steps run, how often, and with what patience. The only folder that imports prefect."""
