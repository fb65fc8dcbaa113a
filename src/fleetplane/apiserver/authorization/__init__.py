"""May they? The stage after authentication: RBAC, the Node authorizer, and what is built on their answers."""
