"""An outstation of lib60870 that does what lines of JSON on its standard input say, and answers each with one."""

import json
import sys
import time

import c104

server = None
points = {}


def quality(words):
    flags = c104.Quality()
    for word in words:
        flags |= getattr(c104.Quality, word)
    return flags


def set_value(point, value, words):
    kind = point.type.name
    flags = quality(words)
    if kind.startswith("M_SP"):
        point.info = c104.SingleInfo(on=bool(value), quality=flags)
    elif kind.startswith("M_DP"):
        point.info = c104.DoubleInfo(state=list(c104.Double.__members__.values())[value], quality=flags)
    elif kind.startswith("M_ST"):
        point.info = c104.StepInfo(state=c104.Int7(value), transient=True, quality=flags)
    elif kind.startswith("M_BO"):
        point.info = c104.BinaryInfo(blob=c104.Byte32(value), quality=flags)
    elif kind in ("M_ME_NA_1", "M_ME_TD_1"):
        point.info = c104.NormalizedInfo(actual=c104.NormalizedFloat(value), quality=flags)
    elif kind in ("M_ME_NB_1", "M_ME_TE_1"):
        point.info = c104.ScaledInfo(actual=c104.Int16(value), quality=flags)
    elif kind.startswith("M_IT"):
        counted = c104.UInt5(3)
        point.info = c104.BinaryCounterInfo(counter=value, sequence=counted, quality=c104.BinaryCounterQuality())
    else:
        point.info = c104.ShortInfo(actual=value, quality=flags)


def start(do):
    global server
    security = None
    if "ca" in do:
        security = c104.TransportSecurity(validate=True, only_known=False)
        security.set_ca_certificate(cert=do["ca"])
        security.set_certificate(cert=do["cert"], key=do["key"])
        version = getattr(c104.TlsVersion, do["version"])
        security.set_version(min=version, max=version)
    server = c104.Server(ip="127.0.0.1", port=do["port"], tick_rate_ms=50, transport_security=security)
    for name, value in do.get("parameters", {}).items():
        setattr(server.protocol_parameters, name, value)
    station = server.add_station(common_address=do["station"])
    for address, kind, value in do["points"]:
        point = station.add_point(io_address=address, type=getattr(c104.Type, kind))
        set_value(point, value, [])
        points[address] = point
    server.start()
    return True


def send(do):
    """Sends values of one point, each as an event; true once all were taken."""
    for value in do["values"]:
        point = points[do["object"]]
        set_value(point, value, do.get("quality", []))
        if not point.transmit(cause=c104.Cot.SPONTANEOUS):
            return False
        # A time tag of its own for each.
        time.sleep(0.002)
    return True


for line in sys.stdin:
    do = json.loads(line)
    if do["do"] == "start":
        answer = start(do)
    elif do["do"] == "send":
        answer = send(do)
    else:
        answer = server.active_connection_count
    print(json.dumps(answer), flush=True)
