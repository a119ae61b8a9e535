"""Noticing that live errors have changed: by one worker at a time, the detector in a short-lived process of its own.

The detector's library takes 90 MB and two seconds to import: no worker ever imports `detector`.
"""
