"""What clients' states absorbed, logged for whoever retrains: the core, `models.journals` and nothing else of ours.

A request pays for noting its rows; a thread packs and writes them. Trouble with the disk never reaches a request.
"""
