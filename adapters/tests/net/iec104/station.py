"""A controlling station of lib60870: connects, interrogates, and prints every point that comes as a line of JSON."""

import json
import sys

import c104

do = json.loads(sys.argv[1])
security = None
if "ca" in do:
    # It cannot be told the host's name, without which its own library refuses to verify.
    security = c104.TransportSecurity(validate=False, only_known=False)
    security.set_ca_certificate(cert=do["ca"])
    security.set_certificate(cert=do["cert"], key=do["key"])
    security.set_version(min=c104.TlsVersion.TLS_1_2, max=c104.TlsVersion.TLS_1_2)
client = c104.Client(tick_rate_ms=50, transport_security=security)
connection = client.add_connection(ip="127.0.0.1", port=do["port"], init=c104.Init.ALL)
# Acknowledged one by one: a page that is smaller than its window would wait for its timer, 10 s each.
connection.protocol_parameters.receive_window_size = 1
station = connection.add_station(common_address=do["station"])


def received(point: c104.Point, previous_info: c104.Information, message: c104.IncomingMessage) -> c104.ResponseState:
    tag = point.info.recorded_at
    print(
        json.dumps(
            {
                "object": point.io_address,
                "type": message.type.name,
                "cause": message.cot.name,
                "value": float(point.value),
                "quality": str(point.quality),
                "time": tag.isoformat() if tag else None,
            }
        ),
        flush=True,
    )
    return c104.ResponseState.SUCCESS


def new_point(client: c104.Client, station: c104.Station, io_address: int, point_type: c104.Type) -> None:
    point = station.add_point(io_address=io_address, type=point_type)
    point.on_receive(callable=received)


client.on_new_point(callable=new_point)
# What is known before comes to its own place at once; the callback of a new point comes too late for its first value.
for address, kind in do["points"]:
    station.add_point(io_address=address, type=getattr(c104.Type, kind)).on_receive(callable=received)
client.start()
sys.stdin.read()
client.stop()
