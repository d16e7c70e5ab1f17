"""Serving the tuned agent: in the terminal, from Python, and over HTTP as an MLflow model.

Reading order: `agent` asks a policy one question and yields each step as it happens; `endpoint` is a policy behind a
URL that params.yaml does not describe; `bundle` puts model, index, prompts, tools and params into one folder;
`responses` is that folder as an MLflow `ResponsesAgent`, and `model` the file that MLflow loads it from.
"""
