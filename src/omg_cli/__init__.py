"""The `omg` command. Light on purpose: torch and omgvision are imported inside the verbs, so that help is immediate."""
