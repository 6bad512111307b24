hookward providers
hookward providers mobility-work
hookward providers gains
hookward providers partsource
hookward providers acme
