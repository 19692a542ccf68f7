"""``tracestate`` fields as somebody sends them among others, and as they must arrive."""

STATES = [
    ([b"tracestate: a=1"], [b"tracestate: a=1"]),
    ([b"tracestate: a=1 , b=2"], [b"tracestate: a=1 , b=2"]),
    ([b"tracestate: a=1", b"tracestate: b=2,c=3"], [b"tracestate: a=1,b=2,c=3"]),
    ([b"Tracestate: a=1", b"X-Between: x", b"TRACESTATE: b=2"], [b"Tracestate: a=1,b=2", b"X-Between: x"]),
    ([b"tracestate:", b"tracestate: a=1", b"tracestate: "], [b"tracestate: a=1"]),
    ([b"tracestate:", b"tracestate:"], []),
    ([b"tracestate:"], []),
    ([b"tracestate: , \t,"], []),
    ([b"tracestate: foo =1"], []),
    ([b"tracestate: @foo=1"], []),
    ([b"tracestate: foo=bar=baz"], []),
    ([b"tracestate: a=1", b"tracestate: B=2"], []),
    ([b"tracestate: " + b"z" * 257 + b"=1"], []),
    ([b"tracestate: t@v=1,," + b"z" * 256 + b"=1"], [b"tracestate: t@v=1,," + b"z" * 256 + b"=1"]),
    ([b"tracestate: " + b",".join(b"b%d=1" % one for one in range(33))], []),
    (
        [b"tracestate: " + b",".join(b"b%d=1" % one for one in range(32))],
        [b"tracestate: " + b",".join(b"b%d=1" % one for one in range(32))],
    ),
]
