"""Tables of published papers as plans: which runs they take, and the published figures beside ours."""
