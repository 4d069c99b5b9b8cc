// Tries ways out of a run with a gate; each gives what came of it.
export default async function main({ params }) {
  const given = await params.all();
  const tried = async (act) => {
    try {
      return await act();
    } catch (error) {
      return `refused: ${error.name}: ${error.message}`;
    }
  };
  const raw = async (hostname, port) => {
    const link = await Deno.connect({ hostname, port: Number(port) });
    try {
      await link.write(new TextEncoder().encode("ping\n"));
      const room = new Uint8Array(100);
      const count = await link.read(room);
      return count === null ? "refused: closed" : new TextDecoder().decode(room.slice(0, count));
    } finally {
      link.close();
    }
  };
  const get = async (url, options = {}) => {
    const answer = await fetch(url, { ...options, signal: AbortSignal.timeout(10000) });
    return await answer.text();
  };
  const caCerts = [await Deno.readTextFile(given.certificate)];
  return {
    "fetch": await tried(() => get(`http://allowed.test:${given.web}/`)),
    "tls": await tried(() =>
      get(`https://allowed.test:${given.tls}/`, { client: Deno.createHttpClient({ caCerts }) })
    ),
    "raw": await tried(() => raw("allowed.test", given.raw)),
    "listed address": await tried(() => raw("127.0.0.1", given.raw)),
    "wildcard, any port": await tried(() => raw("deep.wild.example", given.raw)),
    "unlisted name": await tried(() => get(`http://other.test:${given.web}/`)),
    "unlisted port": await tried(() => raw("allowed.test", given.shut)),
    "unlisted address": await tried(() => raw("127.0.0.2", given.web)),
    "public address": await tried(() => raw("1.1.1.1", 443)),
    "metadata": await tried(() => raw("169.254.169.254", 80)),
    "name of metadata": await tried(() => raw("metadata.example", 80)),
    "rebound name": await tried(() => raw("rebound.example", given.web)),
    "mapped name": await tried(() => raw("mapped.example", given.web)),
    "server itself": await tried(() => raw("127.0.0.1", given.own)),
    "records": await tried(async () =>
      JSON.stringify(await Deno.resolveDns("allowed.test", "TXT"))
    ),
  };
}
