"""The tuned agent answers: in the terminal, from Python, and over HTTP as an MLflow model.

Reading order: `agent` asks a policy one question and tells each step as it happens; `endpoint` is the policy behind a
URL that nobody described in params.yaml; `bundle` puts model, index, prompts, tools and params into one folder;
`responses` is that folder as an MLflow `ResponsesAgent`, and `model` the file that MLflow loads it from.
"""
