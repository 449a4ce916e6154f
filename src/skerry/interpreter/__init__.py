"""The Python interpreter that runs inside a sandbox, one process for each context.

It speaks docs/reference/interpreter-protocol.md on its standard streams and runs cells with IPython. It is seen
inside at /opt/skerry/interpreter and runs with the image's Python; it imports nothing else of Skerry's.

    main        makes this directory a package and starts `loop`
    loop        requests in, events out
    shell       IPython, with its output going to events
    channel     the protocol's two private descriptors
    capture     what user code writes to descriptors 1 and 2
    interrupts  SIGINT as KeyboardInterrupt, at moments that can bear it
    reports     exceptions as text
    figures     matplotlib figures as results
    warm        what is loaded and run before anybody waits for it
"""
