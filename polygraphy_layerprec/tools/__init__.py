"""The command line: `polygraphy layerprec`.

Every `polygraphy` command imports the tool and the options of `run`, so that these must stay light:
what belongs to one verb alone is imported once that verb is asked for.
"""
