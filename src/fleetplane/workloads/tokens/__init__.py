"""Bootstrap tokens: their time is limited, and this is who sees to it."""
