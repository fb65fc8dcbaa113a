"""How objects are reached: one ``Client`` protocol over in-process and HTTP transports, and informers on top."""
