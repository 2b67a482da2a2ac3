// A certified OpenID issuer (oidc-provider) for the end-to-end tests: `node issuer.mjs PORT` with new keys at every start.
// Machines sign in with their secret; what a person's token would say beside `sub` is chosen by the client's id.
import { createServer } from 'node:http';
import { generateKeyPairSync, randomUUID } from 'node:crypto';
import Provider from 'oidc-provider';

const now = () => Math.floor(Date.now() / 1000);
const claims = {
  anna: () => ({ groups: ['court-clerks'] }),
  'boss-strong': () => ({ groups: ['court-it'], acr: 'urn:example:mfa', auth_time: now() }),
  'boss-stale': () => ({ groups: ['court-it'], acr: 'urn:example:mfa', auth_time: now() - 3600 }),
  'boss-weak': () => ({ groups: ['court-it'], auth_time: now() }),
  nobody: () => ({}),
  // Citizens at an electronic identity: their id in the police's stops, and how surely they signed in.
  citizen: () => ({ person_no: '17-412011-none', acr: 'urn:example:eid:high', auth_time: now() }),
  'citizen-weak': () => ({ person_no: '17-412011-none', acr: 'urn:example:eid:low', auth_time: now() }),
  'citizen-stale': () => ({ person_no: '17-412011-none', acr: 'urn:example:eid:high', auth_time: now() - 3600 }),
  'citizen-unnamed': () => ({ acr: 'urn:example:eid:high', auth_time: now() }),
  neighbour: () => ({ person_no: '17-412012-none', acr: 'urn:example:eid:high', auth_time: now() }),
  lawyer: () => ({ acr: 'urn:example:eid:high', auth_time: now() }),
};

const { privateKey } = generateKeyPairSync('rsa', { modulusLength: 2048 });
const key = { ...privateKey.export({ format: 'jwk' }), kid: randomUUID(), use: 'sig', alg: 'RS256' };

const server = createServer();
server.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  const issuer = `http://127.0.0.1:${server.address().port}`;
  const provider = new Provider(issuer, {
    jwks: { keys: [key] },
    clients: Object.keys(claims).map((client_id) => ({
      client_id,
      client_secret: 'secret-of-the-tests',
      grant_types: ['client_credentials'],
      redirect_uris: [],
      response_types: [],
    })),
    extraTokenClaims: (_, token) => claims[token.clientId](),
    features: {
      clientCredentials: { enabled: true },
      devInteractions: { enabled: false },
      resourceIndicators: {
        enabled: true,
        getResourceServerInfo: (_, resource) => ({
          audience: resource,
          scope: '',
          accessTokenFormat: resource.endsWith(':opaque') ? 'opaque' : 'jwt',
          jwt: { sign: { alg: 'RS256' } },
        }),
      },
    },
  });
  server.on('request', provider.callback());
  console.log(issuer);
});
