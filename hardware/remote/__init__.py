"""A policy that plans on another computer: the server beside a GPU, and the client beside the arm.

`wire.py` and `messages.py` say what goes over the line, `frames.py` what of a history has to. `desk.py` thinks,
`session.py` remembers for one client, `server.py` listens, `serve.py` is the verb.
`line.py` is the client's end with its watchdog, `planner.py` makes a `Planner` of it. `memory.py` keeps the memory that
pictures went through. `openpi.py` and `pi_planner.py` speak openpi's messages.
"""
