"""How objects are served. A request goes straight down the stages, one module each, in this order:

``frontend`` (HTTP, TLS) → ``authentication`` → ``authorization`` → ``routing`` (resolve) → ``decoding`` → ``patching`` /
``admission`` (mutate) → ``validation`` → ``storage`` (commit) → ``encoding`` / ``representation`` (respond). There is no
other path to the store.
"""
