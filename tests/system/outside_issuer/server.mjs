// An OpenID Connect issuer that none of us wrote: oidc-provider, configured as research communities configure theirs.
//
// Started by provider.py: node server.mjs <module> <settings as JSON>. Everything it says about people is in the settings:
// { port, key, cert, keys: [JWK, ...], accounts: {name: [entitlement, ...]}, audience, life }. Once it listens it prints one
// line. POST /-/keys takes {keys: [...]} in place of its keys, as an issuer that rotates them; nothing else is added to it.
import { readFileSync } from 'node:fs';
import { createServer } from 'node:https';

const { default: Provider } = await import(process.argv[2]);
const settings = JSON.parse(process.argv[3]);
const issuer = `https://127.0.0.1:${settings.port}`;
const SCOPES = 'openid profile offline_access entitlements';

function provider(keys) {
  return new Provider(issuer, {
    jwks: { keys },
    clients: [
      {
        client_id: 'serai-cli', token_endpoint_auth_method: 'none', scope: SCOPES, redirect_uris: [], response_types: [],
        grant_types: ['urn:ietf:params:oauth:grant-type:device_code', 'refresh_token'],
      },
      {
        client_id: 'robot', client_secret: settings.secret, scope: SCOPES, redirect_uris: [], response_types: [],
        grant_types: ['client_credentials'],
      },
    ],
    scopes: SCOPES.split(' '),
    claims: { openid: ['sub', 'entitlements'], profile: ['name'] },
    findAccount: (_ctx, id) => id in settings.accounts && ({
      accountId: id, claims: () => ({ sub: id, name: id, entitlements: settings.accounts[id] }),
    }),
    extraTokenClaims: (_ctx, token) => ({ entitlements: settings.accounts[token.accountId ?? token.clientId] ?? [] }),
    issueRefreshToken: (_ctx, client) => client.grantTypeAllowed('refresh_token'),
    clientDefaults: { id_token_signed_response_alg: 'ES256' },
    ttl: { AccessToken: settings.life, ClientCredentials: settings.life },
    features: {
      deviceFlow: { enabled: true }, clientCredentials: { enabled: true }, introspection: { enabled: true },
      revocation: { enabled: true }, devInteractions: { enabled: true },
      resourceIndicators: {
        enabled: true,
        defaultResource: () => undefined,
        useGrantedResource: () => true,
        getResourceServerInfo: (_ctx, resource) => ({
          scope: SCOPES, audience: resource, accessTokenTTL: settings.life, accessTokenFormat: 'jwt',
          jwt: { sign: { alg: keys[0].alg } },
        }),
      },
    },
  });
}

let serve = provider(settings.keys).callback();

async function answer(request, response) {
  if (request.url !== '/-/keys') return serve(request, response);
  let body = '';
  for await (const chunk of request) body += chunk;
  serve = provider(JSON.parse(body).keys).callback();
  response.writeHead(204).end();
}

createServer({ key: readFileSync(settings.key), cert: readFileSync(settings.cert) }, answer)
  .listen(settings.port, '127.0.0.1', () => console.log(`listening at ${issuer}`));
