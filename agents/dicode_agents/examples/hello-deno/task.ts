export default async function main({ params, log }: DicodeSdk) {
  const name = await params.get("name");
  log.info(`greeting ${name}`);
  return { greeting: `Hello, ${name}!` };
}
