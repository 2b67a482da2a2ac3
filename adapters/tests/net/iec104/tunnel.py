"""TLS by OpenSSL before a controlling station of lib60870 that speaks in the open.

As a client the library of c104 2.2.1 ends every TLS handshake, with any server: mbedTLS since 3.6.3 verifies a server only
where it was told the host's name (its error 0x5D80), and c104 cannot tell it. As a server it speaks TLS itself.
"""

import asyncio
import ssl
import threading


async def passing(reader, writer):
    try:
        while data := await reader.read(4096):
            writer.write(data)
            await writer.drain()
    finally:
        writer.close()


def begin(to, files, tell):
    """Leads to `localhost` at a port by TLS; returns the port where it listens in the open. `files` are ca, version and, for
    who has a certificate, cert and key. `tell` hears the reason when TLS fails."""
    context = ssl.create_default_context(cafile=files["ca"])
    if "cert" in files:
        context.load_cert_chain(files["cert"], files["key"])
    context.minimum_version = context.maximum_version = getattr(ssl.TLSVersion, files["version"].replace("TLS_", "TLSv"))
    opened, place = threading.Event(), []

    async def connected(reader, writer):
        try:
            far = await asyncio.open_connection("127.0.0.1", to, ssl=context, server_hostname="localhost")
            await asyncio.gather(passing(reader, far[1]), passing(far[0], writer))
        except ssl.SSLError as error:
            tell(error.reason)
        except OSError:
            pass
        finally:
            writer.close()

    async def serve():
        server = await asyncio.start_server(connected, "127.0.0.1", 0)
        place.append(server.sockets[0].getsockname()[1])
        opened.set()
        await server.serve_forever()

    threading.Thread(target=asyncio.run, args=(serve(),), daemon=True).start()
    opened.wait()
    return place[0]
