"""Who may do what: tokens, policies and roles, the language of rules, and the decision (decision 17). Pure."""
