"""The steps that tasks run; the only place that knows acme_ca and install together."""
