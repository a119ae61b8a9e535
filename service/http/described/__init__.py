"""The API described: an OpenAPI document made of the schemas that requests are checked by, and a page for people.

Loaded when somebody asks for it: a worker that only predicts does not pay for it.
"""
