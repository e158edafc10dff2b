// Keeps the explorer for use offline. build.py writes in the names of the two caches, each with the files that belong in it:
// what all pages share, and this page's model. A name ends in a hash that changes with any of its files.
const CACHES = {};

async function fill([name, files]) {
  const cache = await caches.open(name);
  const fresh = files.map((file) => new Request(file, { cache: "no-cache" })); // asks whether it changed; not for it again
  if (!(await cache.keys()).length) await cache.addAll(fresh); // all or none
}

async function clean() {
  const group = (name) => name.replace(/\w+$/, "");
  const ours = Object.keys(CACHES).map(group);
  const old = (await caches.keys()).filter((name) => ours.includes(group(name)) && !(name in CACHES));
  await Promise.all(old.map((name) => caches.delete(name)));
  await self.clients.claim();
}

async function answer(request) {
  for (const name in CACHES) {
    const kept = await caches.match(request, { cacheName: name, ignoreSearch: true });
    if (kept) return kept;
  }
  return fetch(request);
}

self.oninstall = (event) => event.waitUntil(Promise.all(Object.entries(CACHES).map(fill)));
self.onactivate = (event) => event.waitUntil(clean());
self.onfetch = (event) => event.respondWith(answer(event.request));
